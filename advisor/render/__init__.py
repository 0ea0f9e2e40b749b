"""One file per output format; each has render(plan) -> str."""
