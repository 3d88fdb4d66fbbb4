"""What setup.py needs to compile the three libraries: mode, CUDA toolkit, ninja file, commands."""
