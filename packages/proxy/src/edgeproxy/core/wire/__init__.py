"""Incremental codecs: bytes in, values out."""
