"""What a GPU reaches: reference kernels in CUDA C++, their truth in NumPy, and the measuring of them."""
