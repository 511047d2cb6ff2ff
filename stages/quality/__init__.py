"""Quality of a run: measures of its artifacts, its report, and comparisons of reports.

`images` measures one image, `measure` all of them (and keeps the result), `values` turns counts into the report's
figures, `report` and `compare` write pages, `gallery` chooses and paints pictures. No stage of the pipeline
reads anything that is written here, so ground truth, which is used here, cannot reach a weak stage.
"""
