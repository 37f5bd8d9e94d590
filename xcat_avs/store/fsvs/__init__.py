"""FSVS over Subversion, in the layout of avs_image_mgr."""
