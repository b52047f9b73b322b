// Capsules for C.
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "session/c_api.h"

using namespace reprise::c_api;
using reprise::InvalidArgument;
using reprise::Ok;
using reprise::Status;

extern "C" {

reprise_status reprise_capsule_new(reprise_capsule** capsule) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(capsule);
    *capsule = new reprise_capsule{};
    return Ok();
  });
}

void reprise_capsule_free(reprise_capsule* capsule) { delete capsule; }

int64_t reprise_capsule_position(const reprise_capsule* capsule) {
  return capsule != nullptr && capsule->capsule.valid() ? capsule->capsule.position() : -1;
}

reprise_status reprise_snapshot(reprise_session* session, reprise_capsule* capsule) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(capsule);
    capsule->capsule = session->session.Snapshot();
    return Ok();
  });
}

reprise_status reprise_restore(reprise_session* session, const reprise_capsule* capsule) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(capsule);
    if (!capsule->capsule.valid()) return InvalidArgument("the capsule is empty: nothing was ever put into it");
    return session->session.Restore(capsule->capsule);
  });
}

reprise_status reprise_fork(const reprise_session* session, const reprise_capsule* capsule, size_t count, reprise_session** sessions) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(capsule);
    REPRISE_NEED(sessions);
    if (!capsule->capsule.valid()) return InvalidArgument("the capsule is empty: nothing was ever put into it");
    if (count < 1 || count > kMostLanes)
      return InvalidArgument("cannot fork " + std::to_string(count) + " ways; 1 to " + std::to_string(kMostLanes));
    REPRISE_ASSIGN_OR_RETURN(auto forks, session->session.Fork(capsule->capsule, static_cast<int>(count)));
    std::vector<std::unique_ptr<reprise_session>> handles;
    handles.reserve(count);
    for (reprise::Session& fork : forks) handles.emplace_back(new reprise_session{std::move(fork)});
    for (size_t i = 0; i < count; ++i) sessions[i] = handles[i].release();
    return Ok();
  });
}

reprise_status reprise_rollback(reprise_session* session, int32_t count) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    return session->session.Rollback(count);
  });
}

reprise_status reprise_capsule_serialize(const reprise_session* session, const reprise_capsule* capsule, uint8_t** bytes, size_t* size) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(session);
    REPRISE_NEED(capsule);
    REPRISE_NEED(bytes);
    REPRISE_NEED(size);
    if (!capsule->capsule.valid()) return InvalidArgument("the capsule is empty: nothing was ever put into it");
    REPRISE_ASSIGN_OR_RETURN(const auto serialized, session->session.Export(capsule->capsule));
    auto* copy = static_cast<uint8_t*>(std::malloc(serialized.size()));
    if (copy == nullptr) return reprise::Exhausted("there is no memory for the capsule's " + std::to_string(serialized.size()) + " bytes");
    std::memcpy(copy, serialized.data(), serialized.size());
    *bytes = copy;
    *size = serialized.size();
    return Ok();
  });
}

void reprise_bytes_free(uint8_t* bytes) { std::free(bytes); }

reprise_status reprise_capsule_import(const reprise_model* model, const uint8_t* bytes, size_t size, reprise_capsule* capsule) {
  return Guarded([&]() -> Status {
    REPRISE_NEED(model);
    REPRISE_NEED(capsule);
    if (bytes == nullptr && size > 0) return Missing("bytes");
    REPRISE_ASSIGN_OR_RETURN(reprise::Capsule imported, model->model.ImportCapsule(std::as_bytes(std::span(bytes, size))));
    capsule->capsule = std::move(imported);
    return Ok();
  });
}

}  // extern "C"
