"""Each kind of fabric has a file here, named as the kind, which tells both models what they run on."""
