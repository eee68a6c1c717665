/**
 * The quantile function of the standard normal distribution: the z with Φ(z) = p, to about sixteen digits.
 *
 *     z = q · A(r)/B(r) of r = 0.180625 − q² while |q| ≤ 0.425
 *     z = ±C(r)/D(r) or ±E(r)/F(r) of r = √(−ln min(p, 1 − p)) further out
 *
 * p a probability · q = p − ½ · A … F polynomials of degree seven
 *
 * From     Wichura 1988, algorithm AS 241 (PPND16). The logarithm is the series of 2·artanh after splitting off the
 *          exponent.
 * Checked  test/random/Normal.test.ts (Φ(z) = p through an independent Φ, odd symmetry, published values).
 * Departs  from the library's Math.log, whose last bit differs between engines: only + − × ÷ and the correctly
 *          rounded square root of IEEE 754 are used, so that every platform draws the same normals.
 *
 * @module
 */

const bits = new DataView(new ArrayBuffer(8)) // scratch: written and read within one call of naturalLogarithm

/** ln x for a positive, normal x, relative error below 1e-15, with the same bits on every platform. */
export const naturalLogarithm = (x: number): number => {
  bits.setFloat64(0, x)
  const high = bits.getUint32(0)
  const isUpper = (high & 0xfffff) >= 0x6a09e // from √2 on, halve the mantissa: in [√½, √2) the series is short
  bits.setUint32(0, (high & 0xfffff) | (isUpper ? 0x3fe00000 : 0x3ff00000))
  const mantissa = bits.getFloat64(0)
  const exponent = (high >>> 20) - (isUpper ? 1022 : 1023)
  const s = (mantissa - 1) / (mantissa + 1)
  const w = s * s // at most 0.0295: ten terms reach the last bit
  const series = 1 + w * (1 / 3 + w * (1 / 5 + w * (1 / 7 + w * (1 / 9 + w * (1 / 11 + w * (1 / 13 + w * (1 / 15 +
    w * (1 / 17 + w * (1 / 19 + w / 21)))))))))
  return exponent * Math.LN2 + 2 * s * series
}

/** The z below which a standard normal falls with probability p, 0 < p < 1 (p must not be subnormal). */
export const quantile = (p: number): number => {
  const q = p - 0.5
  if (q <= 0.425 && q >= -0.425) return q * centre(0.180625 - q * q)
  const r = Math.sqrt(-naturalLogarithm(q < 0 ? p : 1 - p))
  const z = r <= 5 ? middle(r - 1.6) : far(r - 5)
  return q < 0 ? -z : z
}

const centre = (r: number): number =>
  (((((((2509.0809287301226727 * r + 33430.575583588128105) * r + 67265.770927008700853) * r +
    45921.953931549871457) * r + 13731.693765509461125) * r + 1971.5909503065514427) * r +
    133.14166789178437745) * r + 3.387132872796366608) /
  (((((((5226.495278852854561 * r + 28729.085735721942674) * r + 39307.89580009271061) * r +
    21213.794301586595867) * r + 5394.1960214247511077) * r + 687.1870074920579083) * r +
    42.313330701600911252) * r + 1)

const middle = (r: number): number =>
  (((((((7.7454501427834140764e-4 * r + 0.0227238449892691845833) * r + 0.24178072517745061177) * r +
    1.27045825245236838258) * r + 3.64784832476320460504) * r + 5.7694972214606914055) * r +
    4.6303378461565452959) * r + 1.42343711074968357734) /
  (((((((1.05075007164441684324e-9 * r + 5.475938084995344946e-4) * r + 0.0151986665636164571966) * r +
    0.14810397642748007459) * r + 0.68976733498510000455) * r + 1.6763848301838038494) * r +
    2.05319162663775882187) * r + 1)

const far = (r: number): number =>
  (((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r + 0.0012426609473880784386) * r +
    0.026532189526576123093) * r + 0.29656057182850489123) * r + 1.7848265399172913358) * r +
    5.4637849111641143699) * r + 6.6579046435011037772) /
  (((((((2.04426310338993978564e-15 * r + 1.4215117583164458887e-7) * r + 1.8463183175100546818e-5) * r +
    7.868691311456132591e-4) * r + 0.0148753612908506148525) * r + 0.13692988092273580531) * r +
    0.59983220655588793769) * r + 1)
