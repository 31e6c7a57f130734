// Drafts verified: distributions of one position, and what is left of one after another. As whole
// numbers, so that no order of a sum decides anything. Depends on draw.h and what it depends on.
#pragma once

#include "draw.h"

namespace fastsample {

// What a token is drawn from at one position; it is good while what it is made of is not written
// to. A probability is the quotient of a weight and a total.
class Distribution {
 public:
  // What is kept of a row.
  void take_row(const Row& row, const Cut& cut, Workspace& workspace);
  // Ids, which differ, with weights that need not sum to 1.
  void take_list(const int32_t* ids, const double* weights, size_t n, Workspace& workspace);
  // One token.
  void take_token(int32_t id);

  double of(int32_t id);
  // All of it by rising id.
  struct Listed {
    const int32_t* ids;
    const double* q;
    size_t size;
  };
  Listed list();

 private:
  enum Kind { kRow, kList, kToken };
  double of_row(int32_t id);

  Kind kind_ = kToken;
  Workspace* workspace_ = nullptr;
  Row row_;
  Cut cut_;
  int64_t total_ = 0;
  size_t size_ = 0;  // of a list
  int32_t id_ = 0;   // of a token
  double one_ = 1.0;
};

// What is left of a part of p where q has been refused: max(reached * p - q, 0), in units of 2^-60;
// p itself where that is nothing. Written to the workspace; the mass of what is left is returned.
int64_t take_residual(Distribution& p, Distribution& q, double reached, Workspace& workspace);

// The token of uniform u, of what take_residual has written; -1 where the row of p has changed so
// that there is none.
int32_t draw_residual(double u, const Workspace& workspace);

}  // namespace fastsample
