/* What happens to a coordinate outside of its image. */
#ifndef BND_DATA_CLIP_H
#define BND_DATA_CLIP_H

/* Into 0 to limit; what is no number stays none. */
static inline float bnd_clip(float value, float limit) { return value < 0 ? 0 : value > limit ? limit : value; }

#endif
