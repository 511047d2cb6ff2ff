"""The networks: backbone, heads, decoder, exits, and what is deployed of them."""
