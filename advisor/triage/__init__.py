"""From the text of a failure to its cause and what to do: messages to facts, facts through rules to a diagnosis."""
