"""Views of what the workflow has made, makes, or would make; each reads files and changes none."""
