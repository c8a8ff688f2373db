"""The commands of `xsave`."""
