"""Where osimage definitions come from, and what they and the lists that they name say."""
