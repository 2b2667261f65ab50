"""What a stack costs and consists of, before it exists; and what is generated from that."""
