/* 8-bit hue, saturation, value as cv2.cvtColor(COLOR_BGR2HSV / COLOR_HSV2BGR) defines them: hue in 2 degrees (0..179), the others 0..255. */
#ifndef BND_DATA_HSV_H
#define BND_DATA_HSV_H

#include <stddef.h>
#include <stdint.h>

/* `count` pixels of three bytes; the first byte counts as blue, whatever it is. In place is fine. Equal to OpenCV's in every value. */
void bnd_bgr_to_hsv(const uint8_t *bgr, size_t count, uint8_t *hsv);
/* Back. Where OpenCV's vector kernels truncate and its scalar tail rounds, this truncates everywhere; a few values differ by 1 from any build. */
void bnd_hsv_to_bgr(const uint8_t *hsv, size_t count, uint8_t *bgr);

/* super-gradients' `augment_hsv` in place: hue shifted modulo 180, saturation and value shifted and clamped to 0..255. */
void bnd_hsv_shift(uint8_t *bgr, size_t count, int hue, int saturation, int value);

#endif
