"""The command `ablate`: what each part of self-regulation brings, over several seeds.

variants.py   what each variant changes, and every refusal before anything is computed
running.py    every variant with every seed, through the ordinary stages and their cache
metrics.py    the figures of one run
results.py    means, deviations and paired differences over seeds
table.py      the table on the terminal
page.py       ablation.json and ablation.html
chart.py      ablation.png
cost.py       what each variant costs in training and at test time
"""
