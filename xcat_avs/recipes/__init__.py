"""What an image is built by: recipes, and the procedures that they name."""
