"""A model from files on the disk: config.json and safetensors headers. Never the network, never the weights."""
