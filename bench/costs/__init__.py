"""What single features cost, beside the same work without them."""
