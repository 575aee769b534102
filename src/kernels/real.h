/* The number type of the plain loops: float. The tests compile them in double too (BND_REAL=double), to hold backward rules against finite
   differences; mathematical functions come from <tgmath.h>, which goes by the type. */
#ifndef BND_KERNELS_REAL_H
#define BND_KERNELS_REAL_H

#ifndef BND_REAL
#define BND_REAL float
#endif
typedef BND_REAL bnd_real;

#endif
