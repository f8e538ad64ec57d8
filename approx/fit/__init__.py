"""The fitters, one file each."""
