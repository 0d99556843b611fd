"""HOW IS IT SHOWN? Terminal, figures and the page draw what `lottery.analysis` worked out; nothing here computes."""
