"""Data sets of one's own: folders and tables of images, DICOM files and volumes as they lie."""
