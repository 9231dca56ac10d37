"""Direct fabrics join GPUs to GPUs, which relay what is not for them."""
