"""From an estimate to a plan: the rules, the engine that fires them, the remedies, the walk."""
