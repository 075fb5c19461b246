"""From the LIDC-IDRI collection of the Cancer Imaging Archive to a data set of 2-D patches."""

from pepr_mlops.data.lidc_build.build import Built, Settings, build

__all__ = ["Built", "Settings", "build"]
