"""The Reed-Solomon codec takes and gives any number of symbols per clock, with the transcoding of 802.3 next to it."""
