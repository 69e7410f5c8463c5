"""How fast a backend is here, and two backends side by side: real trials, taken apart."""
