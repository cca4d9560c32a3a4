// SPDX-License-Identifier: PostgreSQL
//
// What clients do.  An operation changes the session and its model alike, or checks one against the other, and knows
// exactly what the server has to answer in the state the model is in.

#ifndef CROSSTALK_OPERATIONS_HPP
#define CROSSTALK_OPERATIONS_HPP

#include <string>
#include <vector>

#include "client.hpp"

namespace crosstalk {

struct Operation {
  enum class Where { anywhere, in_block, alone };
  const char *name;
  unsigned weight;
  Where where;
  // False if it has nothing to do in this state; then it has done nothing.
  bool (*run)(Client &);
};

std::vector<Operation> setting_operations();
std::vector<Operation> object_operations();
std::vector<Operation> messenger_operations();
std::vector<Operation> statement_operations();
std::vector<Operation> check_operations();
const std::vector<Operation> &all_operations();

// Executes one that fits, chosen by weight.
void any_operation(Client &client);
// Everything a client can know about its session; outside of blocks.
void check_everything(Client &client);

// One transaction or a few, or a connection that ends and another that takes its place.
void take_turn(Client &client);
// What a transaction wanted to tell others has been told, or never will be.
void settle_notifications(Client &client);

// --- what the operations share
bool is_superuser(const Client &client);
// The schema in which unqualified names are found.
std::string place(const Client &client);

}  // namespace crosstalk

#endif
