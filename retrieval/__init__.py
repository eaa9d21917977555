"""What an embedding is worth, pictures of it, and search with it; nothing here decides a weight."""
