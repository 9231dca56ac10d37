"""SiP-OCS shares out the ports of every GPU among optical circuit switches [SiP-ML, SIGCOMM 2021]."""

from lightfabric.model.fabric.optical.optical import Switched
from lightfabric.model.spec import SipOcsSpec


class SipOcs(Switched):
    """Makes a circuit of some ports of a pair, through as many switches."""

    spec: SipOcsSpec
