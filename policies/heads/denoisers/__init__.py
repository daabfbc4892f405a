"""Networks that take noise out of a chunk: the part that diffusion, flow and consistency heads share."""
