"""x86 vCPUs."""
