"""An algorithm in one folder: each side sends its columns' means, and a row scores by how far it lies above them."""
