/* NumPy's file of one array, format 1.0 (numpy.lib.format): written only. */
#ifndef BND_FORMATS_NPY_NPY_H
#define BND_FORMATS_NPY_NPY_H

#include "tensor/tensor.h"

/* A row-major array of float32, float64, int8, uint8, int16, int32 or int64. The file is written whole or not at all. */
bnd_status bnd_npy_write(const char *path, bnd_dtype dtype, const bnd_shape *shape, const void *data, bnd_error *error);

#endif
