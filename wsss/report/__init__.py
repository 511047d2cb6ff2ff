"""The quality report's page: figures and pictures in, one HTML file out.

`charts` draws inline SVG, `pictures` paints, `page` fills the templates. Nothing here knows a stage, a run or
a file of the pipeline: `stages.reporting` says what is shown.
"""
