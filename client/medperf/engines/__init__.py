"""What runs a container: one seam (`base`), one engine a module."""
