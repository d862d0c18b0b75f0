"""Page tables: formats as data, and walks over them."""
