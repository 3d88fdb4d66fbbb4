// Mean and variance of values that come in parts.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

namespace lmwp::LMWP_ISA {

// Count, mean and sum of squared distances from it.
struct Moments {
  double count = 0, mean = 0, squares = 0;

  // Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
  // variances", 1979.
  void merge(const Moments& other) {
    if (other.count == 0) return;
    const double total = count + other.count, distance = other.mean - mean;
    squares += other.squares + distance * distance * (count * other.count / total);
    mean += distance * (other.count / total);
    count = total;
  }
};

}  // namespace lmwp::LMWP_ISA
