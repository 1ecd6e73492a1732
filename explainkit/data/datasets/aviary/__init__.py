"""Aviary: drawn birds of seven parts, with exact masks, words, and the same scene with one thing changed.

No file is read or written: an image is a pure function of its seed and its index.

- `shapes`, `catalog`: what can be drawn;
- `grammar`: which species there are and how far apart;
- `scenes`: what is in an image, as numbers; `interventions`: the same scene with one thing changed;
- `canvas`, `rendering`: from scenes to pixels and masks;
- `language`: captions, and the names of species; `words`: what they are made of;
- `dataset`: all of it as `ImageDataset`; `preview`: a contact sheet.

The ideal observer of it, an exactly additive oracle, is `explainkit.data.datasets.aviary.observer`.
"""
