"""What is measured of orchestratord itself."""
