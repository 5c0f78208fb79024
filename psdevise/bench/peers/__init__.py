"""What psdevise is compared with: programs of their own, run as processes."""
