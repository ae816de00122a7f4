"""Taggers, a module each: a section of the config, and the kernel that it stands for."""
