"""Handle the files of a version: verify them by manifest and signature, load them, and copy them."""
