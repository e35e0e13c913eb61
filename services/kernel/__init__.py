"""What every service stands on. Knows none of the services' nouns."""
