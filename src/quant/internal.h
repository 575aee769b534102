/* What the files of this layer share. */
#ifndef BND_QUANT_INTERNAL_H
#define BND_QUANT_INTERNAL_H

#include "quant/quantizer.h"

/* Fresh, empty state for another number of channels. false = memory short, nothing changed. */
bool bnd_quantizer_resize(bnd_quantizer *quantizer, int channels);
bool bnd_quantizer_copy_records(bnd_quantizer *to, const bnd_quantizer *from);

#endif
