#include <memory>

#include <arrow/api.h>
#include <arrow/io/api.h>
#include <parquet/arrow/reader.h>

#include "data/arrow_module/arrow_module.h"

namespace {

using arrow::Array;

bool is_plain(const arrow::DataType& type) {
  return arrow::is_base_binary_like(type.id()) || type.id() == arrow::Type::STRING_VIEW ||
         type.id() == arrow::Type::BINARY_VIEW || arrow::is_primitive(type.id()) || arrow::is_decimal(type.id()) ||
         type.id() == arrow::Type::NA;
}

template <typename ArrayType>
std::string view(const Array& array, int64_t row) {
  return std::string(static_cast<const ArrayType&>(array).GetView(row));
}

arrow::Result<std::optional<std::string>> cell(const Array& array, int64_t row) {
  if (array.IsNull(row)) return std::nullopt;
  switch (array.type_id()) {
    case arrow::Type::STRING:
    case arrow::Type::BINARY:
      return view<arrow::BinaryArray>(array, row);
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY:
      return view<arrow::LargeBinaryArray>(array, row);
    case arrow::Type::STRING_VIEW:
    case arrow::Type::BINARY_VIEW:
      return view<arrow::BinaryViewArray>(array, row);
    case arrow::Type::NA:
      return std::nullopt;
    default: {
      ARROW_ASSIGN_OR_RAISE(const auto scalar, array.GetScalar(row));
      return scalar->ToString();
    }
  }
}

// Strings with few values come as a dictionary and indices into it.
arrow::Status append(const Array& array, graft::TableColumn& column) {
  const auto* dictionary =
      array.type_id() == arrow::Type::DICTIONARY ? static_cast<const arrow::DictionaryArray*>(&array) : nullptr;
  for (int64_t row = 0; row < array.length(); ++row) {
    if (dictionary && array.IsNull(row)) {
      column.values.push_back(std::nullopt);
      continue;
    }
    ARROW_ASSIGN_OR_RAISE(auto value,
                          dictionary ? cell(*dictionary->dictionary(), dictionary->GetValueIndex(row)) : cell(array, row));
    column.values.push_back(std::move(value));
  }
  return arrow::Status::OK();
}

arrow::Status read(const char* path, graft::Table* table) {
  ARROW_ASSIGN_OR_RAISE(const auto file, arrow::io::ReadableFile::Open(path));
  ARROW_ASSIGN_OR_RAISE(const auto reader, parquet::arrow::OpenFile(file, arrow::default_memory_pool()));
  reader->set_use_threads(false);
  ARROW_ASSIGN_OR_RAISE(const auto source, reader->ReadTable());
  ARROW_RETURN_NOT_OK(source->ValidateFull());
  table->num_rows = source->num_rows();
  for (int index = 0; index < source->num_columns(); ++index) {
    const auto& type = *source->field(index)->type();
    const auto& value_type =
        type.id() == arrow::Type::DICTIONARY ? *static_cast<const arrow::DictionaryType&>(type).value_type() : type;
    graft::TableColumn column{source->field(index)->name(), type.ToString(), is_plain(value_type), {}};
    if (column.is_text) {
      for (const auto& chunk : source->column(index)->chunks()) ARROW_RETURN_NOT_OK(append(*chunk, column));
    }
    table->columns.push_back(std::move(column));
  }
  return arrow::Status::OK();
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void graft_read_parquet(const char* path, graft::Table* table) {
  try {
    const arrow::Status status = read(path, table);
    if (!status.ok()) table->error = status.message();
  } catch (const std::exception& error) {
    table->error = error.what();
  }
}
