"""From a workload to bytes: pure arithmetic, no file, no clock, no network."""
