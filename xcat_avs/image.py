"""The name under which scripts of sites know an osimage; it lives in definitions."""

from xcat_avs.definitions.osimage import OsImage

__all__ = ["OsImage"]
