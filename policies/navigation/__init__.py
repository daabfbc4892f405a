"""What classical navigation needs: ways on a grid, steering along them, what an instruction asks for."""
