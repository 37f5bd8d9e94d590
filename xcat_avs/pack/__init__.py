"""From a tag to archives, and the proof of them."""
